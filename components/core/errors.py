"""The one exception that a user can mend."""


class UserError(Exception):
    """One sentence that says what is wrong, where, and how to mend it; commands exit with code 2."""


EXIT_USER_ERROR = 2
