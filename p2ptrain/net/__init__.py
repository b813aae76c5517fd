"""Everything that touches the network. A folder may use those below it, and a test holds that.

transport    this node's place on the network: all of what follows, put together
benchmark    how fast that is
members      how members come and stay: invites, admission, knocking, renewal, what the root decided
relay        peers that nobody can dial: waiting at a relay, calling, meeting, being passed on
lan          members and open swarms on the same local network
router       asking the home's router for an open port
speed        how fast the line to a member is
blobs        weights: served, planned, fetched from several sources
reach        how a connection comes about: ways raced, punching, reflection, dialling back
channel      connections that stand: accepted within bounds, one to a peer, ended in order
trust        keys and papers: identity, certificates, who vouches for whom, mutual TLS
ways         what a way to a peer is, and how people are told
addresses    where peers are, and which addresses may be dialled
"""
