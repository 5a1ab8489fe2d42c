"""What golden cases of each system run, one table per system: kind to runner."""
