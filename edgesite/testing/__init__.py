"""What we test with and vendors test with: the simulator, fakes, contract suites."""
