"""Where state lives: durable files, locks between processes, sealed environments."""
