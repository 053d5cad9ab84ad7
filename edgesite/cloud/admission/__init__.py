"""admission: what a cluster's API server asks about devices: conversion between versions, and whether to take a write."""
