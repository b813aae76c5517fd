"""Keys and papers: who a peer is, what makes it a member, and how a connection proves both."""
