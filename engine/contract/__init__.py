"""What the API, the tables, the catalogue overlay and the archive accept, and each message's encoding and decoding.

Limits are constants and no settings: clients and shops write their exports by them. The two things that a deployment
decides, which surfaces there are and how far ahead of the clock an event may be, are arguments.
"""
