"""Language models: adapters (LoRA) on a frozen base. The only door to transformers and peft, ``securefl[llm]``."""
