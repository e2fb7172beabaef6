"""Find the packages: panelbench/ as it lies, methods/ as ``panelbench.methods``."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["panelbench", "panelbench.*"]),
        # Folders of data files; setuptools warns of every folder that is not named.
        "panelbench.reference",
        "panelbench.report.templates",
        "panelbench.methods",
        *(f"panelbench.methods.{name}" for name in find_packages("methods")),
    ]
)
