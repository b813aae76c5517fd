"""How members come, stay and go: invites, admission, renewal, revocation."""
