"""Memory, time and price before a run: python scripts/plan.py hardware=a100 task=response [--compare]"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("plan")
