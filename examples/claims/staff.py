"""The people of the insurer who decide, each with their roles. In production the company's directory knows them."""

import perdure as df

ADA = df.Person("ada@insurer.example", ("adjuster",))
BEN = df.Person("ben@insurer.example", ("adjuster",))
SAM = df.Person("sam@insurer.example", ("supervisor",))
SUE = df.Person("sue@insurer.example", ("supervisor",))
ROLES = ("adjuster", "supervisor")
STAFF = (ADA, BEN, SAM, SUE)


def in_roles(roles: tuple[str, ...]) -> list[df.Person]:
    """Those who have one of the roles."""
    return [person for person in STAFF if set(person.roles) & set(roles)]
