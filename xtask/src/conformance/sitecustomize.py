"""Python reads this before a test of crun's: one that waits on a socket forever would take the rest of its file along."""

import socket

socket.setdefaulttimeout(20)
