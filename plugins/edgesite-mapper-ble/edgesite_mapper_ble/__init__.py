"""Bluetooth Low Energy peripherals as devices: properties are characteristics."""
