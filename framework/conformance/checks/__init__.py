"""The rules of each plugin kind, one file per kind."""
