"""Steps in virtual time: a cost model in the place of a device. Nothing here loads torch."""
