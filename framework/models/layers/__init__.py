"""The layers of a decoder: tensor parallel, inference only, each with its own weight loader."""
