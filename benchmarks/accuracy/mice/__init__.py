"""The sessions of Steinmetz et al. 2019: reading, the questions their trials answer, and NEDS of many of them."""
