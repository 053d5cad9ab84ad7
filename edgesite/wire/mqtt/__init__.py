"""MQTT 3.1, 3.1.1 and 5 without I/O: the codec, and the core of a broker.

packets      the control packets, as structs
properties   properties of version 5
codec        packets to bytes and back, with limits
topics       rules for topics and filters; the tree of subscriptions
access       password and ACL files of mosquitto's grammar
messages     a published message, encoded once for all who get it
session      what a client has subscribed to and still has to get
connection   one connection: what it may send when
retained     the last message of each topic
broker       all of it together
"""
