"""What a running server says about itself on its operator's port."""
