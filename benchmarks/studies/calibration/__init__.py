"""How calibration learns: five arms, each a kind of new session, with their controls."""
