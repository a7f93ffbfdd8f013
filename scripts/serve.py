"""Serve an exported student over HTTP: python scripts/serve.py export/best --port 8000"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("serve")
