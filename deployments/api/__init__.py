"""What travels over the wire: each protocol translates bytes to requests, asks the data plane, and translates back.

It knows nothing of Ray's actors, replicas or routing.
"""
