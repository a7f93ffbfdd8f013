"""python train.py hardware=a100 task=intent · python train.py --help lists every group and key."""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("train")
