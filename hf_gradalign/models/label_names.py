"""The two classes' names and numbers in every model of this package."""

ID2LABEL = {0: "spoof", 1: "bonafide"}
LABEL2ID = {name: index for index, name in ID2LABEL.items()}
