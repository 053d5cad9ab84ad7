"""The cloud end of the stream tunnels: the way to the kubelet API of every connected node."""
