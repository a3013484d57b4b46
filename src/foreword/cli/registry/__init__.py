"""`foreword registry`: one file for each verb or few verbs that belong together."""
