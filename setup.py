"""Packaging of rasa_core_api."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "rasa_core_api" / "version.py").read_text("utf-8"), re.M
).group(1)  # type: ignore[union-attr]

TEST = [
    "SQLAlchemy>=2.0",
    "confluent-kafka>=2.5",
    "hypothesis>=6.100",
    "mongomock>=4.3",
    "pika>=1.3",
    "psycopg[binary]>=3.2",
    "pymongo>=4.9",
    "pytest>=8",
    "pytest-twisted>=1.14",
    "pytest-xdist>=3.6",
    "txredisapi>=1.4.11",
]
EXTRAS = {
    "redis": ["txredisapi>=1.4.11"],
    "postgres": ["psycopg[binary]>=3.2"],
    "sql": ["SQLAlchemy>=2.0"],
    "amqp": ["pika>=1.3"],
    "kafka": ["confluent-kafka>=2.5"],
    "mongo": ["pymongo>=4.9"],
    "test": TEST,
    "dev": [*TEST, "mypy>=1.13", "mypy-zope>=1.0.9", "ruff>=0.8", "tox>=4"],
}

setup(
    name="rasa_core_api",
    version=VERSION,
    description="Runs the bots that teams built with Rasa Core 0.8-0.14 on a current Python, over the same HTTP API.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["rasa_core_api", "rasa_core_api.*"]),
    package_data={"rasa_core_api": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "attrs>=23.2",
        "h5py>=3.11",
        "klein>=24.8",
        "msgspec>=0.19",
        "numpy>=1.26",
        "pyjwt[crypto]>=2.9",
        "python-crfsuite>=0.9.11",
        "ruamel.yaml>=0.18.6",
        "ruamel.yaml.clib>=0.2.8",
        "treq>=24.9",
        "twisted>=25.5",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Framework :: Twisted",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
