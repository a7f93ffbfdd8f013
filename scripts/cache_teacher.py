"""Store what the teacher says about the data: python scripts/cache_teacher.py <the overrides of the training run>."""

from mangakd.cli.app import main

if __name__ == "__main__":
    main("cache_teacher")
