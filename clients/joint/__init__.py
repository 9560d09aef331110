"""Joint inference: agents answer a question with their own models, and the asker sees one masked sum."""
