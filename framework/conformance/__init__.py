"""The conformance kit: whether a plugin keeps the rules of its interface, and the smallest case in which it does not.

`python -m framework check scheduler=my_policy` prints the table; `assert_conforms` is the same for a test file. Every
registered plugin goes through it in `make test`.
"""

from framework.conformance.kit.finding import Budget, Finding
from framework.conformance.run import assert_conforms, check_plugins

__all__ = ["Budget", "Finding", "assert_conforms", "check_plugins"]
