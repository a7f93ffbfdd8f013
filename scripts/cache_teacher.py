"""Store what the teacher says about the data: python scripts/cache_teacher.py <the overrides of the training run>."""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("cache_teacher")
