"""How a process tells what it does: its log, and its spans."""
