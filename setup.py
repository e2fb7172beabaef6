"""Find the packages: panelbench/ as it lies, methods/ as ``panelbench.methods``."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["panelbench", "panelbench.*"]),
        "panelbench.methods",
        *(f"panelbench.methods.{name}" for name in find_packages("methods")),
    ]
)
