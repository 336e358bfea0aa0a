from . import text


def main(name: str) -> str:
    return text.greeting(name)
