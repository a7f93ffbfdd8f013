"""What pyproject.toml cannot say: the wheel holds the folder conf/ as mangakd/conf, and the templates of prompts.

Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mangakd*"]), "mangakd.conf"],
    package_dir={"mangakd.conf": "conf"},
    package_data={"mangakd.conf": ["**/*.yaml"], "mangakd.labelling": ["prompts/*.jinja"]},
)
