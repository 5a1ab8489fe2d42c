"""Any base model, as its owner has it: folders, hub names, single files, LoRAs, schedulers, devices."""
