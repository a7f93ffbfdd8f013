"""How long a service that ends waits for its answers. Numbers alone, for the command, the server and the Kubernetes manifests."""

PATIENCE = 30.0  # seconds; longer than a full queue should take
GRACE = 10  # seconds after --linger and --patience in which connections end
