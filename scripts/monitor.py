"""How does a rollout go? python scripts/monitor.py rollout.jsonl"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("monitor")
