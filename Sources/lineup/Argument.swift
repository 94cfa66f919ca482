import ArgumentParser

/// A command's positional argument; Tensors has an `Argument` of its own.
typealias Argument = ArgumentParser.Argument
