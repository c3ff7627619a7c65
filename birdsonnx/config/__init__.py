"""The config: JSON text in, frozen settings out.

The keys are those of rmldnn's image classification, matched without regard to case, plus one object
`birdsonnx` of our own. A key that does not exist, or that this version cannot honour yet, is refused with its
full path; nothing is ignored.
"""
