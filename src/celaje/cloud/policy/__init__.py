"""Policies in AWS's language: read, checked and evaluated. Pure: what is asked and what is known come from outside.

    patterns     wildcards and policy variables, in linear time
    conditions   the operators of a Condition
    grammar      what a document must be, and the sentence with which it is refused
    documents    a document made ready: statements that know at once whether they concern a request
    decision     the order in which documents of several kinds decide (IAM User Guide, "Policy evaluation logic")
    managed      the policies of AWS's own that people attach
"""
