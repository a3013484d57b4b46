"""`foreword access`: tenants and keys of the server."""
