"""`foreword chat`, at a terminal or in a pipe."""
