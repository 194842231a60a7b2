from tests.isolation import _same_plugins_afterwards

__all__ = ["_same_plugins_afterwards"]
