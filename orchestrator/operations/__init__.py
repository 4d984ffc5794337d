"""Operations: intents to create or destroy one node, and what carries them out."""
