"""Parts for samplers: noise, temperature, filters, penalties, and the distribution that they state."""
