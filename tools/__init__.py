"""Programs that build what the package ships; nothing here is imported by the engine."""
