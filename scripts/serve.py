"""Serve an exported student over HTTP: python scripts/serve.py export/best --port 8000"""

from mangakd.runtime.serve import main

if __name__ == "__main__":
    main()
