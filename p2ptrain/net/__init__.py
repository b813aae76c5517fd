"""Everything that touches the network: keys, certificates, connections, transfers.

Who somebody is      identity, private_files, certificates (reads), authority (makes), verifier
How one joins        invite, admission (decides), join (asks and answers)
How one stays        renewal (of certificates), state (whom the root turned away), spreading (of that)
How one connects     addresses, tls, dialling, listener, gate, link, transport
How one meets        rendezvous (all of it), preamble, calls, calling, called, meeting, reservation, relay,
                     guest, legs, splice
How weights travel   blob_server, blob_fetch, blob_plan (who brings what), blob_part (on disk), bandwidth
Small things         ask, background, rates, sockets, traffic
"""
