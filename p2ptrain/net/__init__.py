"""Everything that touches the network: keys, certificates, connections, transfers.

Who somebody is      identity, private_files, certificates (reads), authority (makes), verifier
How one joins        invite, admission (decides), join (asks and answers)
How one connects     addresses, tls, dialling, listener, gate, link, transport
How weights travel   blob_server, blob_fetch
Small things         background, rates, sockets, traffic
"""
