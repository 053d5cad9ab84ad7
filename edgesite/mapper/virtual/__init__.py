"""Simulated machines behind protocol ``virtual``: what demos, trials and load tests drive where there is no machine.

thermostat   a room with a heater
waves        sensors that draw a curve
driver       the driver of both
"""
