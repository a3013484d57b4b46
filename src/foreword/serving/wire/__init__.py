"""OpenAI JSON on one side, the contract on the other."""
